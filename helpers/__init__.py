"""The companion workbench's helpers. The hallway (modules here) serves every stage; each room serves its own stage.

hallway     settings · persona · conversations · families · base_model · supervision · generation · records · files ·
            replies · japanese · figures · quiet · conversion
rooms       data (01, 02) → train (03–05) → export (06) → serve (07) → evaluate (08)
runner      course: the notebooks in order, resumable
"""

import logging

# bitsandbytes warns at import that it could download a faster kernel; the one it brings is used.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
