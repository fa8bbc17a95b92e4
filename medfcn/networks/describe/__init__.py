"""Networks in words and pictures: stages, parameters, receptive field."""
