"""`capsign dev`: everything on one machine, for development, demonstrations and tests."""
