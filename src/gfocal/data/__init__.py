"""Pictures and their boxes: reading, data sets, training and test transforms, batches."""
