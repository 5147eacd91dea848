// Tests of Primitives
