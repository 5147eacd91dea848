/// Where a Redis server is and how to log in.
package struct RedisEndpoint: Equatable, Sendable {
    package enum Location: Equatable, Sendable {
        case tcp(host: String, port: UInt16)
        case unix(path: String)
    }

    package var location: Location
    package var username: String?
    package var password: String?
    package var database: Int

    package init(_ location: Location, username: String? = nil, password: String? = nil, database: Int = 0) {
        self.location = location
        self.username = username
        self.password = password
        self.database = database
    }
}
