"""Shows results: tables, pictures, one page."""
