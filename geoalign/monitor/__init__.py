"""Monitoring: a site watched for years, visit by visit. What is published is a pure function of the valid scenes."""
