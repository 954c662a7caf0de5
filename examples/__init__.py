"""Example teachers, one folder each. Import them as `shortcutv2v.examples`, in a checkout and from a wheel."""
