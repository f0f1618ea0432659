"""Pages: the contract, the API reference for people, and what each problem means. Nothing in them comes from elsewhere."""
