# `make lab`: opens on the first notebook. jupyterlab-execute-time shows a cell's time once "Record timing" is on.
c = get_config()  # noqa: F821
c.LabApp.default_url = "/lab/tree/01_data.ipynb"
c.ServerApp.ip = "127.0.0.1"
