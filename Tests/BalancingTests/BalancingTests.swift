// Tests of Balancing
