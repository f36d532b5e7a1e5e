package backup

import (
	"context"

	"mailstow/mailbox"
)

// A server may say that messages in several mailboxes are one (EMAILID,
// X-GM-MSGID): labels of Gmail, copies elsewhere. It is downloaded once and
// copied for the others, which the archive makes links.

// setTwinsApart takes out of the plans what need not be downloaded: of each
// content all but the first message, and those whose content the archive has.
func (r *run) setTwinsApart(ctx context.Context) error {
	var objects []string
	for _, p := range r.plans {
		for _, m := range p.want {
			if m.Object != "" {
				objects = append(objects, m.Object)
			}
		}
	}
	if len(objects) == 0 {
		return nil
	}
	held, err := r.archive.Holding(ctx, objects)
	if err != nil {
		return archiveFailed(ctx, err)
	}
	seen := make(map[string]bool, len(objects))
	for object := range held {
		seen[object] = true
	}
	for _, p := range r.plans {
		alone := p.want[:0]
		for _, m := range p.want {
			if m.Object != "" && seen[m.Object] {
				p.twins = append(p.twins, m)
				continue
			}
			if m.Object != "" {
				seen[m.Object] = true
			}
			alone = append(alone, m)
		}
		p.want = alone
	}
	return nil
}

// copyTwins stores the messages that were set apart, from the archive's own
// files. Those for which that cannot be done are wanted from the server.
func (r *run) copyTwins(ctx context.Context, p *plan) error {
	if err := r.writer.flush(); err != nil { // the index must know what has come
		return err
	}
	var objects []string
	for _, m := range p.twins {
		objects = append(objects, m.Object)
	}
	held, err := r.archive.Holding(ctx, objects)
	if err != nil {
		return archiveFailed(ctx, err)
	}
	p.want = nil
	for _, m := range p.twins {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		copied, err := r.copyTwin(ctx, p, m, held)
		if err != nil {
			return err
		}
		if !copied {
			p.want = append(p.want, m)
		}
	}
	p.twins = nil
	return nil
}

func (r *run) copyTwin(ctx context.Context, p *plan, m mailbox.Message, held map[string]int64) (copied bool, err error) {
	archived, ok := held[m.Object]
	if !ok {
		return false, nil
	}
	staged, err := r.archive.Copy(ctx, p.Mailbox, m, archived)
	if err != nil {
		return false, archiveFailed(ctx, err)
	}
	if staged == nil {
		return false, nil
	}
	if staged.Print().Size != m.Size { // then it is not what the server says it is
		return false, discard(staged)
	}
	return true, r.keepOne(ctx, p, m, staged, "", true)
}
