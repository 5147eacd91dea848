// Tests of HouseRules
