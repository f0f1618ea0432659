"""HTTP: endpoints declared once, served lean, described in `openapi/openapi.json`, every refusal a problem document."""
