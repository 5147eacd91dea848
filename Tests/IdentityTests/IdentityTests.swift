// Tests of Identity
