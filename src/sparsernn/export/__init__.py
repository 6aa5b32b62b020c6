"""The C writer: a step program in, one C file out that gives the same bits wherever floats are IEEE's."""
