# `make lab`: the notebooks, with each cell's execution time recorded (and shown by jupyterlab-execute-time).
c = get_config()  # noqa: F821
c.LabApp.default_url = "/lab/tree/01_data.ipynb"
c.ServerApp.ip = "127.0.0.1"
