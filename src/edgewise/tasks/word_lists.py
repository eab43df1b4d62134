"""Words that prompts are made of.

The lists, and their order, are those of the ACDC repository (MIT), which took them from the IOI paper's data set
(Wang et al. 2023). The order matters: a seed draws the same prompts only from the same lists.
"""

from __future__ import annotations

# 99 first names, each one token with a leading space in GPT-2's vocabulary.
IOI_NAMES: tuple[str, ...] = tuple(
    """
    Michael Christopher Jessica Matthew Ashley Jennifer Joshua Amanda Daniel David James Robert John Joseph
    Andrew Ryan Brandon Jason Justin Sarah William Jonathan Stephanie Brian Nicole Nicholas Anthony Heather
    Eric Elizabeth Adam Megan Melissa Kevin Steven Thomas Timothy Christina Kyle Rachel Laura Lauren Amber
    Brittany Danielle Richard Kimberly Jeffrey Amy Crystal Michelle Tiffany Jeremy Benjamin Mark Emily Aaron
    Charles Rebecca Jacob Stephen Patrick Sean Erin Jamie Kelly Samantha Nathan Sara Dustin Paul Angela Tyler
    Scott Katherine Andrea Gregory Erica Mary Travis Lisa Kenneth Bryan Lindsey Kristen Jose Alexander Jesse
    Katie Lindsay Shannon Vanessa Courtney Christine Alicia Cody Allison Bradley Samuel
    """.split()
)

IOI_PLACES: tuple[str, ...] = tuple(
    """
    store garden restaurant school hospital office house station
    """.split()
)

IOI_OBJECTS: tuple[str, ...] = tuple(
    """
    ring kiss bone basketball computer necklace drink snack
    """.split()
)
