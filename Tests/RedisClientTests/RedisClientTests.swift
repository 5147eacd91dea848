// Tests of RedisClient
