import Primitives
import Testing

@testable import Configuration

@Suite("Redis URLs")
struct RedisURLTests {
    @Test(
        "what each form means",
        arguments: [
            ("redis://localhost:6379", "localhost", 6379, nil, nil, 0),
            ("redis://localhost", "localhost", 6379, nil, nil, 0),
            ("REDIS://10.0.0.1:1/", "10.0.0.1", 1, nil, nil, 0),
            ("redis://[::1]:7000/15", "[::1]", 7000, nil, nil, 15),
            ("redis://:secret@h", "h", 6379, nil, "secret", 0),
            ("redis://user:secret@h:1/2", "h", 1, "user", "secret", 2),
            ("redis://us%65r:p%40%3A%2F%23ss%C3%A4@h", "h", 6379, "user", "p@:/#ssä", 0),
            ("redis://:a:b@c@h", "h", 6379, nil, "a:b@c", 0),
            ("redis://:@h", "h", 6379, nil, nil, 0),
        ] as [(String, String, UInt16, String?, String?, Int)])
    func tcp(_ url: String, _ host: String, _ port: UInt16, _ user: String?, _ password: String?, _ database: Int)
        throws
    {
        let redis = try RedisURL(parsing: url)
        guard case .tcp(let foundHost, let foundPort) = redis.kind else {
            Issue.record("not TCP: \(redis)")
            return
        }
        #expect(foundHost.description == host)
        #expect(foundPort == port)
        #expect(redis.username == user)
        #expect(redis.password == password)
        #expect(redis.database == database)
    }

    @Test(
        "sockets",
        arguments: [
            ("unix:///run/redis.sock", "/run/redis.sock", nil, 0), ("redis+unix:///a%20b?db=3", "/a b", nil, 3),
            ("unix://:pw@/run/r", "/run/r", "pw", 0),
        ] as [(String, String, String?, Int)])
    func unix(_ url: String, _ path: String, _ password: String?, _ database: Int) throws {
        let redis = try RedisURL(parsing: url)
        #expect(redis.kind == .unix(path: path))
        #expect(redis.password == password)
        #expect(redis.database == database)
    }

    @Test(
        "what is refused, without the password in the message",
        arguments: [
            ("", "not a Redis URL; write redis://host:port or unix:///path"),
            ("localhost:6379", "not a Redis URL; write redis://host:port or unix:///path"),
            ("http://h", "not a Redis URL; write redis://host:port or unix:///path"),
            ("rediss://h", "TLS to Redis is not supported yet; write redis://"),
            ("redis-sentinel://h", "Redis Cluster and Sentinel are not supported yet; write redis://host:port"),
            ("redis+cluster://h", "Redis Cluster and Sentinel are not supported yet; write redis://host:port"),
            ("redis://a:1,b:2", "Redis Cluster and Sentinel are not supported yet; name one host"),
            ("redis://:pw@", "the host is neither a name nor an address; write one such as localhost or 10.0.0.7"),
            ("redis://h:0", "the port is not a number in 1...65535; write one such as :8081"),
            ("redis://h/x", "the database is not a number; write redis://host:6379/0"),
            ("redis://h/-1", "the database is not a number; write redis://host:6379/0"),
            ("redis://h/1/2", "the database is not a number; write redis://host:6379/0"),
            ("redis://h?db=1", "a redis:// URL has no parameters here; write the database as redis://host:6379/N"),
            ("redis://:p#w@h", "a `#` in a password must be written %23; otherwise remove it"),
            (
                "redis://user@h",
                "a user without a password; write redis://user:password@host, or redis://:password@host"
            ),
            (
                "redis://user:@h",
                "a user without a password; write redis://user:password@host, or redis://:password@host"
            ),
            ("redis://:p%w@h", "the user or the password is not percent-encoded UTF-8; write `%` itself as %25"),
            ("redis://:p%ff@h", "the user or the password is not percent-encoded UTF-8; write `%` itself as %25"),
            ("redis://:p%4", "the host is neither a name nor an address; write one such as localhost or 10.0.0.7"),
            ("redis://:p w@h", "a URL can not hold spaces or characters beyond ASCII; percent-encode them"),
            ("unix://run/redis.sock", "no path to a socket; write one such as unix:///run/redis.sock"),
            ("unix:///", "no path to a socket; write one such as unix:///run/redis.sock"),
            ("unix:///a%00b", "no path to a socket; write one such as unix:///run/redis.sock"),
            ("unix:///a?x=1", "the only parameter is the database; write unix:///path?db=0"),
        ])
    func refused(_ url: String, _ expected: String) {
        #expect(outcome { () throws(Invalid) in try RedisURL(parsing: url) } == .failure(Refusal(message: expected)))
    }

    @Test("a socket's path fits sockaddr_un")
    func longPath() throws {
        let longest = "/" + String(repeating: "a", count: 106)
        #expect(try RedisURL(parsing: "unix://" + longest).kind == .unix(path: longest))
        #expect((try? RedisURL(parsing: "unix://" + longest + "a")) == nil)
    }

    @Test("however it is printed, the password is masked")
    func masked() throws {
        let redis = try RedisURL(parsing: "redis://user:s3cret@h:1/2")
        let configuration = try parse(
            file(rateLimit: "  requestsPerSecond: 1\n  redisURL: redis://user:s3cret@h:1/2"))
        var dumped = ""
        dump(redis, to: &dumped)
        dump(configuration, to: &dumped)
        let texts = ["\(redis)", String(reflecting: redis), "\(configuration)", "\([redis] as [Any])", dumped]
        for text in texts {
            #expect(!text.contains("s3cret"))
            #expect(text.contains("redis://user:***@h:1/2"))
        }
        #expect(try "\(RedisURL(parsing: "redis://:s3cret@h"))" == "redis://:***@h:6379/0")
        #expect(try "\(RedisURL(parsing: "redis://h"))" == "redis://h:6379/0")
        #expect(try "\(RedisURL(parsing: "unix://:s3cret@/s?db=1"))" == "unix://:***@/s?db=1")
    }
}
