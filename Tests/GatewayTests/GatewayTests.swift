// Tests of Gateway
