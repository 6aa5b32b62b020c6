"""Random graphs as the structure of recurrent networks: families, properties, null models, analysis."""
