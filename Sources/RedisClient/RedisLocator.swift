/// Who knows where the server is. Asked anew before each attempt to connect: after a failover it is elsewhere.
package protocol RedisLocator: AnyObject {
    /// Answer by `located` or `notLocated`, at once or later.
    ///
    /// - Parameter failure: why the last place that was given turned out to be of no use; `nil` where it was not tried,
    ///   or was good for a while.
    func locate(_ connection: RedisConnection, after failure: RedisFailure?)
}

/// Each of a list in turn.
final class TurnLocator: RedisLocator {
    private var locations: [RedisEndpoint.Location]
    private var next: Int

    /// - Parameter first: nodes that begin with different ones spread their load.
    init(_ locations: [RedisEndpoint.Location], first: UInt64) {
        self.locations = locations
        next = locations.isEmpty ? 0 : Int(first % UInt64(locations.count))
    }

    /// Those that were given at first, and others that have turned up since.
    func replace(_ locations: [RedisEndpoint.Location]) {
        guard !locations.isEmpty else { return }
        self.locations = locations
    }

    func locate(_ connection: RedisConnection, after failure: RedisFailure?) {
        guard !locations.isEmpty else {
            connection.notLocated(.lost("no server is known"))
            return
        }
        let location = locations[next % locations.count]
        next = (next + 1) % locations.count
        connection.located(location)
    }
}
