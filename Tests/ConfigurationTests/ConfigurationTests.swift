// Tests of Configuration
