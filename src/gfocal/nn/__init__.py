"""The network's parts: backbone, feature pyramid and the convolutions of the head."""
