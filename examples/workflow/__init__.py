"""A small workflow engine over Holdfast: the logic is here, the state is there."""
