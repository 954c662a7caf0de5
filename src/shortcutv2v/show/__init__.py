"""Pictures for people: contact sheets, the paper's figures, plots and pages. The extra `[show]` has what they need."""

from shortcutv2v.show.figures import blending_masks, efficiency, error_maps, motion, sampling_positions
from shortcutv2v.show.sheet import contact_sheet

__all__ = ["blending_masks", "contact_sheet", "efficiency", "error_maps", "motion", "sampling_positions"]
