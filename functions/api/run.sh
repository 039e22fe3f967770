#!/bin/sh
# What Lambda Web Adapter starts: the application on its port. The packages that no layer has room for lie beside it.
export PYTHONPATH="${LAMBDA_TASK_ROOT:-.}:${LAMBDA_TASK_ROOT:-.}/packages:/opt/python:${PYTHONPATH:-}"
exec python3 -m captions_api
