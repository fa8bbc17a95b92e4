"""A data set → the settings of many short trainings → those that were best on the validation cases."""
