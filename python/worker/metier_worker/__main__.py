"""``python -m metier_worker``: the template process of one function; its control socket is descriptor 3."""

from .template import main

raise SystemExit(main())
