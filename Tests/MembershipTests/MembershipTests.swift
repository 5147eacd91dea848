// Tests of Membership
