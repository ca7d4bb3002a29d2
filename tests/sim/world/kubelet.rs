//! Who writes, rotates and removes the files: containers, their runtime and the kubelet, one system call at a time.

use super::*;

impl World {
    // Pods and containers.

    /// A pod with one container begins to write. `pod_dir` is `<namespace>_<pod>_<uid>`.
    pub fn start_pod(&mut self, namespace: &str, pod: &str, container: &str) -> usize {
        let uid = format!("{:08x}", 0x1000_0000 + self.next_uid);
        self.next_uid += 1;
        let pod_dir = format!("{namespace}_{pod}_{uid}");
        self.make_dir(&format!("{ROOT}/{pod_dir}"));
        self.make_dir(&format!("{ROOT}/{pod_dir}/{container}"));
        self.start_container(pod_dir, container.to_owned(), 0)
    }

    fn start_container(&mut self, pod_dir: String, name: String, restart: u32) -> usize {
        let mut parts = pod_dir.split('_');
        let (namespace, pod) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let service = nodewick::data::workload::guess_service(pod);
        let labels = format!(
            "{{cluster=\"c1\", container=\"{name}\", namespace=\"{namespace}\", node=\"n1\", service_name=\"{service}\"}}"
        );
        let key = format!("{pod_dir}/{name}/{restart}");
        note(|| format!("{:>11.6} container {key} starts", self.now as f64 / 1e9));
        let log = self.oracle.add_log(key, labels, pod.to_owned());
        let dir = format!("{ROOT}/{pod_dir}/{name}");
        let live = format!("{dir}/{restart}.log");
        let conmon = self.rng.once_in(3);
        self.containers.push(Container {
            pod_dir,
            name,
            restart,
            dir,
            live,
            open: [None, None],
            torn: None,
            partial: [None, None],
            ops: VecDeque::new(),
            running: true,
            gone: false,
            seq: 0,
            stamp: 0,
            same: Vec::new(),
            conmon,
            rotated_second: 0,
            born: self.now,
            reopened: 0,
            missed: 0,
        });
        let inode = self.new_file(log);
        for pipe in 0..2 {
            self.open_pipe(log, pipe, inode);
        }
        let first = self.rng.below(self.nature.pace.1);
        self.schedule(first, Act::Write(log));
        if self.nature.rotate.1 > 0 {
            let (from, to) = self.nature.rotate;
            let after = self.rng.range(from, to);
            self.schedule(after, Act::Rotate(log));
        }
        log
    }

    fn new_file(&mut self, log: usize) -> usize {
        let live = self.containers[log].live.clone();
        let inode = self.create(&live, Content::Log);
        self.new_generation(log, inode);
        inode
    }

    fn new_generation(&mut self, log: usize, inode: usize) {
        let number = self.inodes[inode].number;
        let generations = &mut self.oracle.logs[log].generations;
        generations.push(crate::oracle::Generation { number, ..Default::default() });
        let at = generations.len() - 1;
        self.inodes[inode].of.push((log, at));
    }

    fn open_pipe(&mut self, log: usize, pipe: usize, inode: usize) {
        let old = self.containers[log].open[pipe].replace(inode);
        self.inodes[inode].handles += 1;
        if let Some(old) = old {
            self.close(old);
        }
    }

    pub(super) fn close(&mut self, inode: usize) {
        self.inodes[inode].handles -= 1;
        self.settle(inode);
    }

    /// Restarts a container's process: the next instance gets a file of its own, the one before the last goes.
    pub fn restart_after(&mut self, log: usize, after: u64) {
        self.schedule(after, Act::Restart(log));
    }

    pub fn delete_after(&mut self, log: usize, after: u64) {
        self.schedule(after, Act::Delete(log));
    }

    pub fn running(&self) -> Vec<usize> {
        (0..self.containers.len()).filter(|log| self.containers[*log].running).collect()
    }

    pub(super) fn act(&mut self, act: Act) {
        match act {
            Act::Write(log) => self.write(log),
            Act::Op(log) => self.op(log),
            Act::Rotate(log) => self.rotate(log),
            Act::Restart(log) => self.restart(log),
            Act::Delete(log) => {
                if self.containers[log].running {
                    self.stop(log);
                    let pod_dir = self.containers[log].pod_dir.clone();
                    for other in 0..self.containers.len() {
                        if self.containers[other].pod_dir == pod_dir {
                            let after = self.rng.range(MILLI, 200 * MILLI);
                            self.schedule(after, Act::Purge(other));
                        }
                    }
                }
            }
            Act::Purge(log) => self.purge(log),
            Act::Event => self.tell(),
        }
    }

    /// The process ends. Its last words may lack a newline.
    fn stop(&mut self, log: usize) {
        self.flush_torn(log);
        let now = self.now;
        note(|| format!("{:>11.6} container {} ends", now as f64 / 1e9, self.oracle.logs[log].key));
        self.containers[log].running = false;
        for pipe in 0..2 {
            if let Some(partial) = self.containers[log].partial[pipe].take() {
                // Its fragments so far are its text, and stay without an `F`.
                let text = partial.text[..partial.at].to_owned();
                let inode = self.containers[log].open[pipe].expect("a running container's pipes are open");
                let generation = self.generation_of(log, inode);
                let end = self.inodes[inode].data.len() as u64;
                // The agent gives it the stamp of the log's last line.
                let stamp = self.containers[log].stamp;
                self.oracle.finish_tail(partial.line, text, stamp, generation, end, now);
            }
            if let Some(inode) = self.containers[log].open[pipe].take() {
                self.close(inode);
            }
        }
    }

    fn restart(&mut self, log: usize) {
        if !self.containers[log].running || !self.containers[log].ops.is_empty() {
            return;
        }
        self.stop(log);
        let Container { pod_dir, name, restart, .. } = &self.containers[log];
        let (pod_dir, name, restart) = (pod_dir.clone(), name.clone(), *restart);
        // The kubelet keeps one dead instance.
        let old = (0..self.containers.len()).find(|other| {
            let other = &self.containers[*other];
            other.pod_dir == pod_dir && other.name == name && other.restart + 1 == restart && !other.gone
        });
        if let Some(old) = old {
            self.schedule(20 * MILLI, Act::Purge(old));
        }
        self.start_container(pod_dir, name, restart + 1);
    }

    /// All files of an ended instance go; of a deleted pod, the directories too.
    fn purge(&mut self, log: usize) {
        if self.containers[log].gone {
            return;
        }
        // A file that lives shorter than the agent's look at its directory is missed, as one that never was.
        // Each failed call costs another look.
        let seen = if self.errors { 6 * FRESH_FILE } else { FRESH_FILE };
        let reopened = self.containers[log].reopened;
        let fresh = reopened > 0 && self.now < reopened + seen;
        if fresh || self.guarded(log, None) {
            self.schedule(500 * MILLI, Act::Purge(log));
            return;
        }
        self.containers[log].gone = true;
        self.excuse_short(log);
        let (dir, live) = (self.containers[log].dir.clone(), self.containers[log].live.clone());
        let mut ops: VecDeque<Op> = self.files_of(&live).into_iter().map(Op::Remove).collect();
        ops.push_front(Op::Remove(live));
        ops.push_back(Op::RemoveDir(dir));
        ops.push_back(Op::RemoveDir(format!("{ROOT}/{}", self.containers[log].pod_dir)));
        // A rotation that was under way ends here.
        let idle = self.containers[log].ops.is_empty();
        self.containers[log].ops = ops;
        if idle {
            self.schedule(0, Act::Op(log));
        }
    }

    /// What lived for less than an agent needs to see it.
    fn excuse_short(&mut self, log: usize) {
        let needed = match self.nature.events {
            Events::Prompt if self.errors => 10 * SECOND,
            Events::Late if self.errors => 10 * SECOND,
            Events::Prompt => 500 * MILLI,
            Events::Late => 1600 * MILLI,
            Events::Lost if self.errors => 20 * SECOND,
            Events::Lost => 10_600 * MILLI,
        };
        let seen_since = self.containers[log].born.max(self.alive_since.unwrap_or(self.now));
        if self.now < seen_since + needed {
            let lines: Vec<usize> =
                (0..self.oracle.lines.len()).filter(|line| self.oracle.lines[*line].log == log).collect();
            for line in lines {
                self.oracle.excuse(line, "lived too short");
            }
        }
    }

    /// True when files must stay for now: the agent is away and the run is one in which nothing may be lost.
    fn guarded(&self, log: usize, generation: Option<usize>) -> bool {
        if !self.nature.strict || self.at_home() {
            return false;
        }
        match generation {
            Some(generation) => self.oracle.needs(log, generation),
            None => (0..self.oracle.logs[log].generations.len()).any(|at| self.oracle.needs(log, at)),
        }
    }

    /// Rotated files of a log, by name.
    fn files_of(&self, live: &str) -> Vec<String> {
        let Some((dir, name)) = live.rsplit_once('/') else { return Vec::new() };
        let prefix = format!("{name}.");
        let names = self.dirs.get(dir).map(|dir| &dir.names);
        let of = names.into_iter().flat_map(|names| names.keys());
        of.filter(|name| name.starts_with(&prefix)).map(|name| format!("{dir}/{name}")).collect()
    }

    fn rotate(&mut self, log: usize) {
        let (from, to) = self.nature.rotate;
        if to > 0 && !self.quiet {
            let again = self.rng.range(from, to);
            self.schedule(again, Act::Rotate(log));
        }
        let container = &self.containers[log];
        if !container.running || !container.ops.is_empty() || self.quiet {
            return;
        }
        let live = container.live.clone();
        let empty = self.file(&live).is_none_or(|inode| self.inodes[inode].data.is_empty());
        if empty {
            return;
        }
        let mut ops = VecDeque::new();
        if self.nature.copytruncate {
            ops.extend([Op::Copy(format!("{live}.1")), Op::Truncate]);
        } else {
            // cleanupUnusedLogs, removeExcessLogs, compress, rename, reopen.
            let all = self.files_of(&live);
            let (unused, used): (Vec<String>, Vec<String>) = all.iter().cloned().partition(|path| {
                path.ends_with(".tmp") || (!path.ends_with(".gz") && all.contains(&format!("{path}.gz")))
            });
            let excess = used.len().saturating_sub(MAX_FILES - 2);
            for path in &used[..excess] {
                let inode = self.file(path);
                let of = inode.map_or_else(Vec::new, |inode| self.inodes[inode].of.clone());
                if of.iter().any(|(log, generation)| self.guarded(*log, Some(*generation))) {
                    return;
                }
            }
            ops.extend(unused.into_iter().map(Op::Remove));
            ops.extend(used[..excess].iter().cloned().map(Op::Remove));
            for plain in used[excess..].iter().filter(|path| !path.ends_with(".gz")) {
                ops.extend([
                    Op::MakeTmp(plain.clone()),
                    Op::FinishTmp(plain.clone()),
                    Op::Remove(plain.clone()),
                ]);
            }
            let container = &mut self.containers[log];
            container.rotated_second = (self.now / SECOND).max(container.rotated_second + 1);
            let text = stamp_text(BASE + container.rotated_second * SECOND);
            let stamp: String = text[..19].chars().filter(|c| c.is_ascii_digit()).collect();
            let renamed = format!("{live}.{}-{}", &stamp[..8], &stamp[8..]);
            ops.extend([Op::Rename(live, renamed), Op::Reopen, Op::Swap(0), Op::Swap(1)]);
        }
        self.containers[log].missed += u32::from(self.alive_since.is_none());
        self.rotations += 1;
        self.containers[log].ops = ops;
        self.schedule(0, Act::Op(log));
    }

    fn op(&mut self, log: usize) {
        let Some(op) = self.containers[log].ops.pop_front() else { return };
        note(|| format!("{:>11.6} kubelet: {op:?} of {}", self.now as f64 / 1e9, self.oracle.logs[log].key));
        let mut after = self.rng.range(20_000, 2 * MILLI);
        match op {
            Op::Remove(path) => {
                self.unlink(&path);
            }
            Op::RemoveDir(path) => {
                if self.dirs.get(&path).is_some_and(|dir| dir.names.is_empty()) {
                    self.dirs.remove(&path);
                    self.watched.remove(&path);
                    self.unlink(&path);
                }
            }
            Op::MakeTmp(plain) => {
                let tmp = format!("{plain}.tmp");
                if let Some(inode) = self.file(&plain) {
                    let (data, of) = (self.inodes[inode].data.clone(), self.inodes[inode].of.clone());
                    let tmp = self.create(&tmp, Content::Unfinished);
                    self.inodes[tmp].data = data;
                    self.inodes[tmp].of = of;
                }
                after = self.rng.range(MILLI, 60 * MILLI);
                if self.rng.once_in(self.nature.abandoned) {
                    // The kubelet dies; its next life cleans up.
                    self.containers[log].ops.clear();
                }
            }
            Op::FinishTmp(plain) => {
                let (tmp, gzip) = (format!("{plain}.tmp"), format!("{plain}.gz"));
                if let Some(inode) = self.file(&tmp) {
                    self.inodes[inode].content = Content::Gzip;
                    self.link(&gzip, inode);
                    self.unlink(&tmp);
                }
            }
            Op::Rename(from, to) => {
                if let Some(inode) = self.file(&from) {
                    self.link(&to, inode);
                    self.unlink(&from);
                }
                after = self.rng.range(50_000, 15 * MILLI);
            }
            Op::Reopen => {
                if self.containers[log].running {
                    self.containers[log].reopened = self.now;
                    self.new_file(log);
                } else if let Some(to) = self.files_of(&self.containers[log].live).last().cloned()
                    && self.file(&self.containers[log].live).is_none()
                    && let Some(inode) = self.file(&to)
                {
                    // The runtime cannot reopen what has ended: the kubelet renames back.
                    let live = self.containers[log].live.clone();
                    self.link(&live, inode);
                    self.unlink(&to);
                }
            }
            Op::Swap(pipe) => {
                let live = self.containers[log].live.clone();
                if self.containers[log].running
                    && let Some(inode) = self.file(&live)
                {
                    self.flush_torn(log);
                    self.open_pipe(log, pipe, inode);
                }
            }
            Op::Copy(to) => {
                let live = self.containers[log].live.clone();
                if let Some(inode) = self.file(&live) {
                    let data = self.inodes[inode].data.clone();
                    self.unlink(&to);
                    let copy = self.create(&to, Content::Log);
                    self.inodes[copy].data = data;
                }
                after = self.rng.range(MILLI, 30 * MILLI);
            }
            Op::Truncate => {
                self.flush_torn(log);
                let live = self.containers[log].live.clone();
                if let Some(inode) = self.file(&live) {
                    let generation = self.generation_of(log, inode);
                    self.oracle.logs[log].generations[generation].cut = true;
                    for line in self.oracle.open_in(log, generation) {
                        let age = self.now - self.oracle.lines[line].written_at;
                        if self.oracle.lines[line].done {
                            self.cut_lines.push((line, age));
                        }
                        self.oracle.excuse(line, "cut");
                    }
                    self.inodes[inode].data.clear();
                    self.new_generation(log, inode);
                }
            }
        }
        if !self.containers[log].ops.is_empty() {
            self.schedule(after, Act::Op(log));
        }
    }

    fn generation_of(&self, log: usize, inode: usize) -> usize {
        let of = self.inodes[inode].of.iter().rev().find(|(of, _)| *of == log);
        of.expect("a container writes its own files").1
    }

    // Lines.

    fn append(&mut self, log: usize, inode: usize, bytes: &[u8]) {
        let generation = self.generation_of(log, inode);
        let data = &mut self.inodes[inode].data;
        data.extend_from_slice(bytes);
        let facts = &mut self.oracle.logs[log].generations[generation];
        if facts.head == 0 {
            let head = &data[..data.len().min(256)];
            facts.head = match head.iter().position(|byte| *byte == b'\n') {
                Some(end) => xxh3_64(&head[..=end]).max(1),
                None if head.len() == 256 => xxh3_64(head).max(1),
                None => 0,
            };
        }
    }

    fn flush_torn(&mut self, log: usize) {
        if let Some(Torn { inode, rest }) = self.containers[log].torn.take() {
            self.append(log, inode, &rest);
        }
    }

    fn write(&mut self, log: usize) {
        if !self.containers[log].running {
            return;
        }
        if self.containers[log].torn.is_some() {
            self.flush_torn(log);
        } else {
            self.write_fragment(log);
        }
        if self.quiet && !self.is_mid_line(log) {
            return;
        }
        let after = if self.containers[log].torn.is_some() {
            self.rng.range(10_000, 3 * MILLI)
        } else if self.rng.once_in(3) {
            // A burst.
            self.rng.range(1000, 200_000)
        } else {
            let (from, to) = self.nature.pace;
            self.rng.range(from, to)
        };
        self.schedule(after, Act::Write(log));
    }

    fn is_mid_line(&self, log: usize) -> bool {
        let container = &self.containers[log];
        container.torn.is_some() || container.partial.iter().any(Option::is_some)
    }

    /// One more line from a container, at once: the probe of liveness.
    pub fn write_probe(&mut self, log: usize) {
        if self.containers[log].running {
            self.write_fragment(log);
            while self.is_mid_line(log) {
                self.flush_torn(log);
                if self.is_mid_line(log) {
                    self.now += 1000;
                    self.write_fragment(log);
                }
            }
        }
    }

    fn write_fragment(&mut self, log: usize) {
        let wall = self.wall();
        let quiet = self.quiet;
        let mut pipe = usize::from(self.rng.once_in(4));
        if quiet && self.containers[log].partial[pipe].is_none() && self.is_mid_line(log) {
            pipe ^= 1;
        }
        let Some(inode) = self.containers[log].open[pipe] else { return };
        let generation = self.generation_of(log, inode);
        let stream = ["stdout", "stderr"][pipe];
        let alike = self.containers[log].conmon && self.rng.once_in(2);
        if self.containers[log].partial[pipe].is_none() {
            let copy = self.rng.once_in(self.nature.copies);
            let text = self.text(log, pipe, copy);
            let now = self.now;
            let line = self.oracle.begin(log, stream, text.clone(), generation, now);
            self.containers[log].partial[pipe] = Some(Partial { line, text, at: 0 });
        }
        let fragment_limit = self.nature.fragment;
        let container = &mut self.containers[log];
        if !(alike && wall < container.stamp + 5 * MILLI) {
            // Stamps have nanoseconds and do not go back.
            let stamp = wall.max(container.stamp + 1);
            container.stamp = stamp;
            container.same.clear();
        }
        let stamp = container.stamp;
        let partial = container.partial[pipe].as_mut().expect("begun above");
        let rest = &partial.text[partial.at..];
        let full = rest.len() <= fragment_limit;
        let piece = if full { rest } else { &rest[..fragment_limit] };
        let tag = if full { 'F' } else { 'P' };
        let bytes = format!("{} {stream} {tag} {piece}\n", stamp_text(stamp)).into_bytes();
        partial.at += piece.len();
        let end = self.inodes[inode].data.len() as u64 + bytes.len() as u64;
        let line = partial.line;
        if full {
            let text = partial.text.clone();
            container.partial[pipe] = None;
            let shift = match container.same.iter_mut().find(|(known, _)| *known == text) {
                Some((_, copies)) => {
                    *copies += 1;
                    *copies
                }
                None => {
                    container.same.push((text, 0));
                    0
                }
            };
            let now = self.now;
            self.oracle.finish(line, stamp + shift, generation, end, now);
        }
        if self.rng.once_in(self.nature.torn) {
            let cut = self.rng.range(1, bytes.len() as u64) as usize;
            self.append(log, inode, &bytes[..cut]);
            self.containers[log].torn = Some(Torn { inode, rest: bytes[cut..].to_vec() });
        } else {
            self.append(log, inode, &bytes);
        }
    }

    fn text(&mut self, log: usize, pipe: usize, copy: bool) -> String {
        let seq = self.containers[log].seq;
        self.containers[log].seq += 1;
        let id = &self.oracle.logs[log].key;
        let side = ["o", "e"][pipe];
        if copy {
            // One stamp later it would be another entry; under one stamp it is the nth copy.
            return format!("heartbeat of {id} {side}");
        }
        let long = self.rng.once_in(self.nature.long);
        let pad_len = if long { self.rng.range(200, 1500) } else { self.rng.below(60) } as usize;
        let pad: String =
            (0..pad_len).map(|at| char::from(b'a' + ((seq as usize + at) % 26) as u8)).collect();
        let poison = if self.rng.once_in(self.nature.poison) { " POISON" } else { "" };
        let body = format!("id={id} {side} n={seq}{poison} len={pad_len} {pad}");
        match self.rng.below(8) {
            0 => {
                let (request, trace) = (self.rng.below(6), self.rng.next());
                format!(
                    "{{\"level\":\"error\",\"msg\":\"{body}\",\"request_id\":\"req-{request}\",\"trace_id\":\"{trace:032x}\"}}"
                )
            }
            1 | 2 => {
                let request = self.rng.below(6);
                let level = if self.nature.recorder && seq.is_multiple_of(2) { "debug" } else { "info" };
                format!("{{\"level\":\"{level}\",\"msg\":\"{body}\",\"request_id\":\"req-{request}\"}}")
            }
            3 => format!("WARN {body}"),
            4 | 5 if self.nature.requests => crate::red::line(&format!("{id} {side} {seq}"), &body),
            _ => body,
        }
    }

    /// The writers finish their lines and fall silent, the kubelet rests, no fault befalls anything.
    pub fn become_quiet(&mut self) {
        self.quiet = true;
        self.nature.read_error = 0;
        self.nature.open_error = 0;
        self.nature.list_error = 0;
        self.nature.poison = 0;
        for log in self.running() {
            if self.is_mid_line(log) {
                self.schedule(MILLI, Act::Write(log));
            }
        }
    }
}
