"""The companion workbench's helpers. The hallway (modules here) serves every stage; each room serves its own stage.

hallway     settings · persona · conversations · families · base_model · supervision · generation · records · files ·
            figures
rooms       data (01, 02) → train (03–05) → export (06) → serve (07) → evaluate (08)
runner      course: the notebooks in order, resumable
"""
