// Tests of HTTP1
