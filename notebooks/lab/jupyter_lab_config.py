# `make lab`: opens on the first notebook; overrides.json beside this file has each cell's time shown.
from pathlib import Path

c = get_config()  # noqa: F821
c.LabApp.app_settings_dir = str(Path(__file__).parent)
c.LabApp.default_url = "/lab/tree/01_data.ipynb"
c.ServerApp.ip = "127.0.0.1"
c.ServerApp.allow_root = True  # the usual user of a container; the server listens on this machine only, with a token
