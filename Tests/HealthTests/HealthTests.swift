// Tests of Health
