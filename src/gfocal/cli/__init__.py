"""The command `gfocal`: one file a verb."""
