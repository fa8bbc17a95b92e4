"""Memory that each command needs to start, so that one which cannot is refused in a line."""

from medfcn.library_memory import Start

_READING, _NETWORK = ("medfcn.evaluation.evaluate", "skimage.measure"), ("medfcn.verbs.predicting", "scipy.ndimage")
_TRAINING = (*_READING, *_NETWORK, "medfcn.verbs.training")
STARTS = dict.fromkeys(("check", "look", "evaluate", "measure"), Start(180, 90, _READING))
STARTS |= dict.fromkeys(("predict", "bids-app"), Start(740, 280, _NETWORK))
STARTS |= dict.fromkeys(("plan", "export", "networks"), Start(720, 280, (*_READING, *_NETWORK)))
STARTS |= dict.fromkeys(("train", "tune", "demo"), Start(720, 300, _TRAINING))
"""Memory that the libraries of a command take (torch 2.13.0 for CPUs)."""
