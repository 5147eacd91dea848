import Primitives
import Testing

@testable import Configuration

private let notRedis =
    "not a Redis URL; write redis://host:port, rediss://…, unix:///path, redis+sentinel://… or redis+cluster://…"

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
            ("", notRedis),
            ("localhost:6379", notRedis),
            ("http://h", notRedis),
            ("redis-sentinel://h", notRedis),
            ("rediss+unix:///s", notRedis),
            (
                "redis://a:1,b:2",
                "several hosts are sentinels or a cluster; write redis+sentinel:// or redis+cluster://"
            ),
            ("rediss://h?db=1", "an unknown parameter; there are ca, cert, key, name"),
            ("rediss://h?ca", "an unknown parameter; there are ca, cert, key, name"),
            ("rediss://h?ca=", "the parameter ca is empty or not percent-encoded UTF-8"),
            ("rediss://h?ca=%ff", "the parameter ca is empty or not percent-encoded UTF-8"),
            ("rediss://h?ca=a&ca=b", "the parameter ca is there twice"),
            ("rediss://h?key=a", "a key without a certificate; write ?cert=/path&key=/path"),
            ("redis+sentinel://h", "the name that the sentinels give the primary is missing; write …/mymaster"),
            ("redis+sentinel://h/", "the name that the sentinels give the primary is missing; write …/mymaster"),
            ("redis+sentinel://h/a%20b", "the name that the sentinels give the primary is missing; write …/mymaster"),
            ("redis+sentinel://h/m/x", "the database is not a number; write redis://host:6379/0"),
            (
                "redis+sentinel://h,,g/m",
                "the host is neither a name nor an address; write one such as localhost or 10.0.0.7"
            ),
            ("redis+sentinel://h:0,g/m", "the port is not a number in 1...65535; write one such as :8081"),
            ("redis+sentinel://h,h:26379/m", "h:26379 is there twice"),
            ("redis+sentinel://h/m?sentinelUser=u", "sentinelUser without sentinelPassword; write both"),
            ("redis+cluster://h/1", "a Redis Cluster has database 0 only; end the URL with the hosts"),
            ("redis+cluster://h?x=1", "this URL has no parameters; write the database as redis://host:6379/N"),
            ("redis://:pw@", "the host is neither a name nor an address; write one such as localhost or 10.0.0.7"),
            ("redis://h:0", "the port is not a number in 1...65535; write one such as :8081"),
            ("redis://h/x", "the database is not a number; write redis://host:6379/0"),
            ("redis://h/-1", "the database is not a number; write redis://host:6379/0"),
            ("redis://h/1/2", "the database is not a number; write redis://host:6379/0"),
            ("redis://h?db=1", "this URL has no parameters; write the database as redis://host:6379/N"),
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

    @Test("sentinels, clusters and TLS, each as it is printed")
    func several() throws {
        func printed(_ url: String) throws -> String { "\(try RedisURL(parsing: url))" }
        #expect(
            try printed("redis+sentinel://:p%40@a,b:7,[::1]:8/my%2Dname/3?sentinelPassword=x%26y")
                == "redis+sentinel://:***@a:26379,b:7,[::1]:8/my-name/3")
        let sentinel = try RedisURL(parsing: "redis+sentinel://a/m?sentinelUser=u&sentinelPassword=x%26y")
        #expect(sentinel.sentinelLogin == RedisURL.Login(username: "u", password: "x&y"))
        #expect(sentinel.login == nil && sentinel.database == 0 && sentinel.tls == nil)
        #expect(try printed("rediss+sentinel://a/m") == "rediss+sentinel://a:26379/m/0")
        #expect(try printed("redis+cluster://u:p@a,10.0.0.1:7000/") == "redis+cluster://u:***@a:6379,10.0.0.1:7000/")
        #expect(try printed("rediss+cluster://a") == "rediss+cluster://a:6379/")
        let secure = try RedisURL(parsing: "rediss://u:p@h/2?ca=/etc/ca%20s.pem&cert=c&key=k&name=redis.internal")
        #expect("\(secure)" == "rediss://u:***@h:6379/2")
        #expect(
            secure.tls
                == RedisURL.TLS(authorities: "/etc/ca s.pem", certificate: "c", key: "k", name: "redis.internal"))
        #expect(try RedisURL(parsing: "rediss://h").tls?.authorities == nil)
        #expect(try RedisURL(parsing: "redis://h").tls == nil)
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
