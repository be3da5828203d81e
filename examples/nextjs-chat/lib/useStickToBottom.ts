import { useCallback, useEffect, useRef, useState } from "react";

const NEAR = 48; // pixels from the end that count as the end

/**
 * Keep the end of a growing list in view until the user scrolls up. Then nothing moves until the user scrolls back to
 * the end. `scroller` is the ref for the element with the scroll bar, `content` that for the growing element in it.
 */
export function useStickToBottom() {
  const scroller = useRef<HTMLDivElement>(null);
  const content = useRef<HTMLDivElement>(null);
  const isStuck = useRef(true);
  const lastTop = useRef(0);
  const [isAtBottom, setIsAtBottom] = useState(true);

  const toBottom = useCallback(() => {
    const element = scroller.current;
    if (!element) return;
    isStuck.current = true;
    element.scrollTop = element.scrollHeight;
    lastTop.current = element.scrollTop;
    setIsAtBottom(true);
  }, []);

  useEffect(() => {
    const element = scroller.current;
    if (!element || !content.current) return;
    const onScroll = () => {
      const distance = element.scrollHeight - element.clientHeight - element.scrollTop;
      // Growing content moves the end away without scrolling. Only an upward move comes from the user.
      if (element.scrollTop < lastTop.current && distance > 1) isStuck.current = false;
      else if (distance <= NEAR) isStuck.current = true;
      lastTop.current = element.scrollTop;
      setIsAtBottom(isStuck.current);
    };
    const observer = new ResizeObserver(() => isStuck.current && toBottom());
    element.addEventListener("scroll", onScroll, { passive: true });
    observer.observe(content.current);
    observer.observe(element);
    return () => {
      element.removeEventListener("scroll", onScroll);
      observer.disconnect();
    };
  }, [toBottom]);

  return { scroller, content, isAtBottom, toBottom };
}
