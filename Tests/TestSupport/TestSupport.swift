// Support for tests
