// Tests of RateLimiting
