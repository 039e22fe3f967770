"""CloudFormation on moto: what deployments and drift need."""
