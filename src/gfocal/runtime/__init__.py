"""How a detector computes when nothing is to be learnt: the same numbers, sooner."""
