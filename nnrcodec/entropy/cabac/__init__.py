"""DeepCABAC, the arithmetic coder of ISO/IEC 15938-17."""
