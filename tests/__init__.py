"""A package of its own: dependencies that install one of the same name would hide a folder without this file."""
