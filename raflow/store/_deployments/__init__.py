"""Which code the service runs under which name.

- `_deployments`: names that point at one of their versions, and the bundles of these.
- `_deployment_rows`: both as rows, and back.
"""

from __future__ import annotations
