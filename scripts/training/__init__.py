"""What the scripts that train the shipped models share: one module each for the loop, the folder and every recipe."""
