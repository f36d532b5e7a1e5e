FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN CGO_ENABLED=0 go build -trimpath -o /mailstow .

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /usr/share/zoneinfo /usr/share/zoneinfo
COPY --from=build /mailstow /usr/bin/mailstow
ENV HOME=/config XDG_STATE_HOME=/config/state MAILSTOW_CONFIG=/config/config.toml MAILSTOW_ARCHIVE=/archive TMPDIR=/archive
VOLUME ["/config", "/archive"]
HEALTHCHECK --interval=1h CMD ["/usr/bin/mailstow", "status", "--max-age", "26h", "--quiet"]
ENTRYPOINT ["/usr/bin/mailstow"]
CMD ["backup", "--every", "6h"]
