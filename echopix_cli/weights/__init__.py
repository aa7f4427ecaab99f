"""The weights room: model names to folders, folders to tensors."""
