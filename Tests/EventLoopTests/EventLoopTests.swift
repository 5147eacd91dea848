// Tests of EventLoop
