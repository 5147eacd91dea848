import RedisClient
import Testing

@testable import Gateway

@Suite("What is told of a Redis that does not do what it is asked")
struct UnansweredTests {
    private static let commands = [
        ["SET", "a", "1"], ["DEL", "b"], ["PUBLISH", "sluice:x", "y"], ["SET", "a", "2"],
    ]

    @Test(
        "it says what was refused, in which words, and what to do",
        arguments: [
            (
                .refused("NOPERM User x has no permissions to run the 'del' command"),
                "Redis refuses SET a, DEL b, PUBLISH sluice:x: NOPERM User x has no permissions to run the 'del' command: ACL SETUSER … +set +del +publish, or all that docs/redis.md lists"
            ),
            (
                .refused("NOPERM No permissions to access a key"),
                "Redis refuses SET a, DEL b, PUBLISH sluice:x: NOPERM No permissions to access a key: ACL SETUSER … ~a ~b, or all that docs/redis.md lists"
            ),
            (
                .refused("NOPERM No permissions to access a channel"),
                "Redis refuses SET a, DEL b, PUBLISH sluice:x: NOPERM No permissions to access a channel: ACL SETUSER … &sluice:*, or all that docs/redis.md lists"
            ),
            (
                .refused("WRONGTYPE Operation"),
                "Redis refuses SET a, DEL b, PUBLISH sluice:x: WRONGTYPE Operation: see what a, b holds; what is not Sluice's own can be deleted"
            ),
            (
                .refused("OOM command not allowed"),
                "Redis refuses SET a, DEL b, PUBLISH sluice:x: OOM command not allowed: \(RedisCause.outOfMemory.remedy)"
            ),
            (.silent("no answer for 1s"), "Redis does not answer: connection lost: no answer for 1s"),
        ] as [(RedisFailure, String)])
    func texts(failure: RedisFailure, text: String) {
        #expect("\(Unanswered(failure: failure, commands: Self.commands))" == text)
    }

    @Test("where nothing could be asked, it says why this node is not let in")
    func notLetIn() {
        let refused = Unanswered(failure: .refused("WRONGPASS invalid"), commands: [])
        #expect("\(refused)" == "Redis refuses this node: WRONGPASS invalid: \(RedisCause.login.remedy)")
    }
}
