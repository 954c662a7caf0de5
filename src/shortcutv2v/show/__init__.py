"""Pictures for people: contact sheets, the paper's figures, plots and pages. The extra `[show]` has what they need."""

from shortcutv2v.show.figures import (
    blending_masks,
    contact_sheet,
    efficiency,
    error_maps,
    motion,
    sampling_positions,
)

__all__ = ["blending_masks", "contact_sheet", "efficiency", "error_maps", "motion", "sampling_positions"]
